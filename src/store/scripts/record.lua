-- Records occurrences, one after the other, and tallies each one's anomaly after it.
--
-- KEYS  for each occurrence: timeline, repair_count, permanent_fix, metadata
-- ARGV  1-4  the starts of the windows of 30 days, 7 days, 24 hours, 1 hour (Unix seconds)
--       5    seconds to keep an anomaly
--       then for each occurrence: event id, its time (Unix seconds), its time (ISO 8601),
--       the posted object as JSON
-- Gives for each occurrence: {outcome, count of 24 hours before, tally...}, where outcome is
--       'counted', 'duplicate' or 'too_old'; or {'error', message}
--
-- A script and not MULTI: whether an id is new decides about the writes that follow, and the count
-- before must be of the same moment as the count after.

local starts = { ARGV[1], ARGV[2], ARGV[3], ARGV[4] }
local kept_seconds = ARGV[5]

-- Looks first: after any write, though it removes nothing, Redis lets a script exceed maxmemory.
local function forget_expired(timeline)
  local oldest = redis.call('ZRANGE', timeline, 0, 0, 'WITHSCORES')[2]
  if oldest and tonumber(oldest) < tonumber(starts[1]) then
    redis.call('ZREMRANGEBYSCORE', timeline, '-inf', '(' .. starts[1])
  end
end

local function record(names, id, at, at_iso, signature)
  local outcome = 'too_old'
  if tonumber(at) >= tonumber(starts[1]) then
    forget_expired(names.timeline)
    -- Read before anything is written, so that metadata of a foreign type change nothing.
    local has_signature = redis.call('HEXISTS', names.metadata, 'signature') == 1
    if redis.call('ZADD', names.timeline, 'NX', at, id) == 1 then
      outcome = 'counted'
      redis.call('EXPIRE', names.timeline, kept_seconds)
      if not has_signature then
        redis.call('HSET', names.metadata, 'signature', signature)
        redis.call('HSETNX', names.metadata, 'first_seen', at_iso)
      end
      keep(names.metadata, kept_seconds)
    else
      outcome = 'duplicate'
    end
  end
  local result = tally(names, starts)
  local before = result[3]
  if outcome == 'counted' and tonumber(at) >= tonumber(starts[3]) then
    before = before - 1
  end
  return { outcome, before, unpack(result) }
end

local results = {}
for i = 1, elements(4, 5, 4) do
  results[i] = guarded(record, names_of(i, 4), unpack(ARGV, i * 4 + 2, i * 4 + 5))
end
return results
