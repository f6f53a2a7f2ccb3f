-- POSTs the lines of the file $BODIES in turn and prints wrk's own counts as one line of JSON.
local requests = {}
local number = 0

function init(args)
  local headers = { ["Content-Type"] = "application/json" }
  for line in io.lines(os.getenv("BODIES")) do
    requests[#requests + 1] = wrk.format("POST", nil, headers, line)
  end
end

function request()
  number = number % #requests + 1
  return requests[number]
end

function done(summary, latency, _)
  local e = summary.errors
  io.write(string.format(
    'measured {"requests": %d, "duration_us": %d, "status": %d, "connect": %d, "read": %d, "write": %d, '
      .. '"timeout": %d, "p50_us": %d, "p99_us": %d}\n',
    summary.requests, summary.duration, e.status, e.connect, e.read, e.write, e.timeout,
    latency:percentile(50), latency:percentile(99)))
end
