# What people do with this project. Each target does all of its own set-up; the second time that takes no time.
# Recipes exec their program, so that Ctrl-C reaches it once and ends it in order.

.DEFAULT_GOAL := help
.PHONY: help up test lint bench chaos lock clean

help: ## show this
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1|\2/p' Makefile | awk -F'|' '{ printf "  %-12s %s\n", $$1, $$2 }'

up: ## serve the demo models until Ctrl-C; own models: make up ARGS="--models DIR"; another port: make up PORT=9000
	@tools/bootstrap.sh rabbitmq
	@tools/bootstrap.sh venv runtime
	@exec .venv/bin/modelmq up $(if $(PORT),--port $(PORT)) $(ARGS)

test: ## everything that must pass: formatting, lint, types, import direction, all tests; some tests: make test ARGS="-k batcher"
	@tools/bootstrap.sh rabbitmq
	@tools/bootstrap.sh curl
	@tools/bootstrap.sh venv dev
	@tools/rabbitmq43.sh build || true # without it the tests that want it are skipped, and the run says so at its end
	@tools/pulumi/engine.sh build || true # likewise
	@exec tools/checks.sh all $(ARGS)

lint: ## only what needs no RabbitMQ and no minute: formatting, lint, types, import direction
	@tools/bootstrap.sh venv dev
	@exec tools/checks.sh static

bench: ## the comparisons, as ratios of one run; a quick look: make bench ARGS=--quick
	@tools/bootstrap.sh rabbitmq
	@tools/bootstrap.sh venv dev
	@exec .venv/bin/python benchmarks/run.py $(ARGS)

chaos: ## kill, stop, cut and starve everything under load, and show that no accepted request is lost; a minute of it: make chaos ARGS=--short
	@tools/bootstrap.sh rabbitmq
	@tools/bootstrap.sh venv dev
	@exec .venv/bin/python -m tests.chaos $(ARGS)

lock: ## write requirements/*.lock anew from pyproject.toml; newer versions: make lock ARGS=--upgrade
	@tools/bootstrap.sh venv dev
	@exec tools/lock.sh $(ARGS)

clean: ## remove what was built and installed here; messages, secrets and demo models in .modelmq stay
	@rm -rf .venv .venv-bench build dist src/*.egg-info
	@rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find src tests benchmarks examples tools -name __pycache__ -type d -prune -exec rm -rf {} +
