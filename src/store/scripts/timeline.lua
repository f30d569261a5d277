-- The functions on timelines that the scripts that add events share; inserted before these scripts.

-- Up to 128 short members, Redis 7.0 parses all scores again with each ZADD, ten times as slow as
-- in the other encoding, which a set keeps for good after it has held a longer member. No id has a
-- line feed.
local PACKED_EVENTS, LONG_MEMBER = 32, string.rep('\n', 65)

-- Changes the encoding of a timeline when it has reached the length for that.
local function unpack_timeline(timeline, length, at)
  if length == PACKED_EVENTS then
    -- First without an effect: a user who may not run the command must not leave the member behind.
    call('ZREM', timeline, LONG_MEMBER)
    call('ZADD', timeline, at, LONG_MEMBER)
    call('ZREM', timeline, LONG_MEMBER)
  end
end

-- Returns the times of the newest events.
local function newest_times(timeline, count)
  local events, times = call('ZRANGE', timeline, '-' .. count, '-1', 'WITHSCORES'), {}
  for i = 2, #events, 2 do
    times[i / 2] = events[i]
  end
  return times
end

