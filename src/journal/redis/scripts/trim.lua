#!lua flags=allow-oom
-- Gives back what every registered sink has settled. Where no sink is registered nothing is needed, and above `most` bytes the older
-- half makes room.
--
-- KEYS  low, meta, log    ARGV  entries at most, bytes that may be in use
local meta, log = KEYS[2], KEYS[3]
local most = tonumber(ARGV[1])
local lows = redis.call('HVALS', KEYS[1])
local trimmed = 0
if #lows > 0 then
  local lowest
  for _, low in ipairs(lows) do
    low = tonumber(low)
    if not lowest or low < lowest then lowest = low end
  end
  local keep = string.format('%.0f-0', lowest + 1)
  trimmed = redis.call('XTRIM', log, 'MINID', '~', keep, 'LIMIT', most)
  -- What is left below lies in one node, so that this is short.
  if trimmed + 200 < most then trimmed = trimmed + redis.call('XTRIM', log, 'MINID', '=', keep) end
else
  local known = redis.call('HMGET', meta, 'bytes', 'base')
  if tonumber(known[1] or '0') - tonumber(known[2] or '0') > tonumber(ARGV[2]) then
    trimmed = redis.call('XTRIM', log, 'MAXLEN', '~', math.floor(redis.call('XLEN', log) / 2), 'LIMIT', most)
  end
end
if trimmed > 0 then
  local first = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
  local base = redis.call('HGET', meta, 'bytes')
  if first then
    for n = 1, #first[2], 2 do
      if first[2][n] == 'b' then base = first[2][n + 1] end
    end
  end
  redis.call('HSET', meta, 'base', base)
end
return trimmed
