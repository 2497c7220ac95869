#!lua
-- De-duplicates and appends pushes, of one or more shards that live on one server.
--
-- ARGV  window ms, expiry of a bucket of marks in ms, groups; per group: life, pushes;
--       per push: key, received ms, checksum of the body, bytes, bytes that may be in use with them, meta, body
-- KEYS  per group: log, meta; per push: the buckets of marks before, at and after its time
-- gives per group {1} where the life is another one and nothing was done, else {0, then per push: outcome, offset, received ms of the
--       one that is there}; outcomes are 0 new, 1 duplicate, 2 duplicate with another body, 3 full
--
-- The entry comes before its mark: whatever ends the script in between leaves a second copy at worst, never a mark without a push.
local window, expiry, groups = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local k, a = 1, 4

local function marked(id, time)
  for bucket = k, k + 2 do
    local mark = redis.call('HGET', KEYS[bucket], id)
    if mark then
      local at, crc, offset = struct.unpack('>I6I4I6', mark)
      if math.abs(time - at) <= window then return at, crc, offset end
    end
  end
end

local function group()
  local log, meta = KEYS[k], KEYS[k + 1]
  local life, pushes = ARGV[a], tonumber(ARGV[a + 1])
  k, a = k + 2, a + 2
  local known = redis.call('HMGET', meta, 'life', 'seq', 'bytes', 'base')
  if known[1] ~= life then
    k, a = k + pushes * 3, a + pushes * 7
    return {1}
  end
  local seq, bytes, base = tonumber(known[2]), tonumber(known[3]), tonumber(known[4])
  local last, dups, out = nil, 0, {0}
  for _ = 1, pushes do
    local id, time, crc, size = ARGV[a], tonumber(ARGV[a + 1]), tonumber(ARGV[a + 2]), tonumber(ARGV[a + 3])
    local room = tonumber(ARGV[a + 4])
    local at, old_crc, offset = marked(id, time)
    local outcome
    if at then
      outcome, dups = old_crc == crc and 1 or 2, dups + 1
    elseif bytes - base + size > room then
      outcome, offset, at = 3, 0, 0
    else
      seq = seq + 1
      outcome, offset, at, last = 0, seq, time, seq
      redis.call('XADD', log, string.format('%.0f-0', seq), 'm', ARGV[a + 5], 'd', ARGV[a + 6], 'b', string.format('%.0f', bytes))
      bytes = bytes + size
      if redis.call('HSET', KEYS[k + 1], id, struct.pack('>I6I4I6', time, crc, seq)) == 1
        and redis.call('HLEN', KEYS[k + 1]) == 1 then
        redis.call('PEXPIRE', KEYS[k + 1], expiry)
      end
    end
    out[#out + 1], out[#out + 2], out[#out + 3] = outcome, offset, at
    k, a = k + 3, a + 7
  end
  if last then
    local text = string.format('%.0f', seq)
    redis.call('HSET', meta, 'seq', text, 'last', text, 'bytes', string.format('%.0f', bytes))
  elseif dups > 0 then
    -- A duplicate's verdict writes too, so that a WAIT on this connection covers the original.
    redis.call('HINCRBY', meta, 'dups', dups)
  end
  return out
end

local said = {}
for n = 1, groups do said[n] = group() end
return said
