#!lua flags=allow-oom
-- KEYS  low, meta, log    ARGV  sink, now | oldest
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 then return 0 end
local from = redis.call('HGET', KEYS[2], 'seq')
if ARGV[2] == 'oldest' then
  local first = redis.call('XRANGE', KEYS[3], '-', '+', 'COUNT', 1)[1]
  if first then from = string.format('%.0f', tonumber(string.match(first[1], '^%d+')) - 1) end
end
redis.call('HSET', KEYS[1], ARGV[1], from)
return 1
