#!lua flags=allow-oom
-- KEYS  low, state, meta, lease, letters, letter index    ARGV  sink
local bytes = 0
local fields = redis.call('HKEYS', KEYS[5])
for _, field in ipairs(fields) do bytes = bytes + redis.call('HSTRLEN', KEYS[5], field) end
if bytes > 0 then redis.call('HINCRBY', KEYS[3], 'letters', -bytes) end
redis.call('UNLINK', KEYS[4], KEYS[5], KEYS[6])
redis.call('HDEL', KEYS[2], 'c:' .. ARGV[1], 'f:' .. ARGV[1], 'p:' .. ARGV[1])
return redis.call('HDEL', KEYS[1], ARGV[1])
