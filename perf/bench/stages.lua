-- As run.lua, and the sums of the stages that each answer's Server-Timing tells.
local file = assert(io.open(os.getenv("BENCH_BODY"), "rb"))
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = file:read("*a")
file:close()

local all = {}
function setup(thread)
  table.insert(all, thread)
end

-- Globals: `thread:get` reads nothing else.
answers, decode, queue, infer = 0, 0, 0, 0
function response(status, headers, _)
  local timing = headers["Server-Timing"] or headers["server-timing"]
  if status ~= 200 or not timing then return end
  answers = answers + 1
  decode = decode + tonumber(timing:match("decode;dur=([%d.]+)"))
  queue = queue + tonumber(timing:match("queue;dur=([%d.]+)"))
  infer = infer + tonumber(timing:match("infer;dur=([%d.]+)"))
end

function done(summary, latency, _)
  local errors, sums = summary.errors, {answers = 0, decode = 0, queue = 0, infer = 0}
  for _, thread in ipairs(all) do
    for name in pairs(sums) do sums[name] = sums[name] + thread:get(name) end
  end
  io.write(string.format(
    '\nRESULT {"answers":%d,"total_ms":%f,"decode_ms":%f,"queue_ms":%f,"infer_ms":%f,"errors":%d}\n',
    sums.answers, latency.mean / 1000, sums.decode / sums.answers, sums.queue / sums.answers,
    sums.infer / sums.answers,
    errors.status + errors.connect + errors.read + errors.write + errors.timeout))
end
