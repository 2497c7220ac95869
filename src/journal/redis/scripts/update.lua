#!lua flags=allow-oom
-- Replaces dead letters that are kept.
--
-- KEYS  meta, letters, letter index    ARGV  per letter: offset, head, body
local replaced, bytes = 0, 0
for n = 1, #ARGV, 3 do
  if redis.call('ZSCORE', KEYS[3], ARGV[n]) then
    local head, body = 'h' .. ARGV[n], 'b' .. ARGV[n]
    bytes = bytes + #ARGV[n + 1] + #ARGV[n + 2]
      - redis.call('HSTRLEN', KEYS[2], head) - redis.call('HSTRLEN', KEYS[2], body)
    redis.call('HSET', KEYS[2], head, ARGV[n + 1], body, ARGV[n + 2])
    replaced = replaced + 1
  end
end
if replaced > 0 then redis.call('HINCRBY', KEYS[1], 'letters', bytes) end
return replaced
