#!lua flags=allow-oom
-- KEYS  state, lease    ARGV  sink, fence
if redis.call('HGET', KEYS[1], 'f:' .. ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HINCRBY', KEYS[1], 'f:' .. ARGV[1], 1)
redis.call('DEL', KEYS[2])
return 1
