"""Dead letters as an operator handles them: look at them, send them on their way again, throw them away.

`letter`, `selection`, `replay` and `paging` are pure; `looking` takes letters from a queue and puts them back in order,
`desk` does what the commands say over it. Nothing leaves a queue before it is confirmed elsewhere, or was told to go.
"""
