#!lua flags=allow-oom
-- KEYS  state, lease    ARGV  sink, owner, fence, ms
-- As long as nobody got a newer fence the lease is still the owner's, expired or not.
if redis.call('HGET', KEYS[1], 'f:' .. ARGV[1]) ~= ARGV[3] then return 0 end
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[4])
return 1
