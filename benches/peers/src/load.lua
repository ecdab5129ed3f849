-- A wrk script. Its argument is a file with one cookie a line, which the requests use in turn; without it, no cookie is sent.

local requests, at = {}, 0

function init(args)
  if args[1] then
    for cookie in io.lines(args[1]) do
      requests[#requests + 1] = wrk.format(nil, nil, { Cookie = cookie })
    end
  else
    requests[1] = wrk.format()
  end
end

function request()
  at = at % #requests + 1
  return requests[at]
end

function done(summary, latency)
  local errors = summary.errors
  local failures = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  print(string.format("outcome %d %d %d %d %d", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), failures))
end
