-- Keeps timelines bounded; put between library.lua and record.lua. The newest events of an anomaly
-- are in its timeline, each with its id. Older ones are rolled up, oldest first, into running
-- totals: a member of `folded_counts` is the number of all rolled-up events up to the end of a
-- bucket, its score is the time of the newest event in the bucket. So any window takes a look-up or
-- two, whatever the volume. domain/rollup.rs does the same in memory.
--
-- `folded`         "<oldest> <newest> <number> <coarse before>", the last is the start of an hour
-- `folded_counts`  the running totals
-- `folded_ids`     a hash of 64 fields with the ids of the last events that were rolled up, by
--                  which a late copy is recognised: ten bytes each, 48 bits of the id's SHA-1 and
--                  the event's time in seconds. The field `dropped` is a time: ids of later events
--                  were never dropped

local ID_FIELDS, ID_BYTES, DROPPED = 64, 10, 'dropped'
-- The room of a field: its share of the ids, that many standard deviations (a hash spreads them),
-- and some more. So no field overflows before the limit is reached, but once in ten million times.
local DEVIATIONS, MORE_ROOM = 6, 8
-- The ids that a field had room for at least before there was `dropped`.
local ONCE_PER_FIELD = 8
-- Maximum number of arguments of one command: Lua's stack takes some thousands.
local MAX_ARGUMENTS = 2000

-- Returns the width of the bucket of an event that is rolled up now.
local function bucket_seconds(at, day_at)
  return at < day_at and COARSE_SECONDS or FINE_SECONDS
end

local function call_in_parts(command, key, arguments)
  for from = 1, #arguments, MAX_ARGUMENTS do
    call(command, key, unpack(arguments, from, math.min(from + MAX_ARGUMENTS - 1, #arguments)))
  end
end

-- Returns the field that an id belongs to, and the bytes that stand for it.
local function id_field(id)
  local hex = redis.sha1hex(id)
  return tonumber(string.sub(hex, 1, 2), 16) % ID_FIELDS,
    struct.pack('>I6', tonumber(string.sub(hex, 3, 14), 16))
end

-- Returns the ids of a field, which is read once a call.
local function ids_of(k, rollup, field)
  rollup.ids = rollup.ids or {}
  local ids = rollup.ids[field] or call('HGET', KEYS[k + FOLDED_IDS], field) or ''
  rollup.ids[field] = ids
  return ids
end

-- Returns the time after which no id was dropped, with those of this call. Where the field is
-- missing, an older writer may have dropped the id of any event.
local function dropped_until(k, rollup)
  if not rollup.dropped then
    rollup.dropped = tonumber(call('HGET', KEYS[k + FOLDED_IDS], DROPPED))
      or (rollup.total > ONCE_PER_FIELD and math.floor(rollup.edge_at) + 1 or 0)
  end
  return math.max(rollup.dropped, rollup.dropped_now or 0)
end

-- Returns true if an id is remembered, of an event that is inside 30 days.
local function has_recent_id(k, rollup, id, starts)
  local field, bytes = id_field(id)
  local ids = ids_of(k, rollup, field)
  local index = string.find(ids, bytes, 1, true)
  while index do
    if index % ID_BYTES == 1
      and struct.unpack('>I4', ids, index + 6) >= math.floor(starts[5]) then
      return true
    end
    index = string.find(ids, bytes, index + 1, true)
  end
  return false
end

local function add_recent_id(k, rollup, id, at, limit)
  local field, bytes = id_field(id)
  local share = limit / ID_FIELDS
  local max_bytes = math.ceil(share + DEVIATIONS * math.sqrt(share) + MORE_ROOM) * ID_BYTES
  local ids = ids_of(k, rollup, field) .. bytes .. struct.pack('>I4', math.floor(at))
  for entry = 1, #ids - max_bytes, ID_BYTES do
    -- Seconds are rounded down there, and here up.
    local dropped = struct.unpack('>I4', ids, entry + 6) + 1
    rollup.dropped_now = math.max(rollup.dropped_now or 0, dropped)
  end
  rollup.ids[field] = string.sub(ids, -max_bytes)
  rollup.changed_ids = rollup.changed_ids or {}
  rollup.changed_ids[field] = true
end

-- Takes an event that is older than the newest rolled-up one; `write_rollup` adds it to its bucket.
-- `element` is the one that brought it, if it is not in the timeline.
local function roll_up_late(rollup, element, at, at_number)
  rollup.late = rollup.late or {}
  table.insert(rollup.late, { element = element, at = at, number = at_number })
  if at_number < rollup.first_at then
    rollup.first, rollup.first_at = at, at_number
  end
end

-- Rolls up the `count` oldest events of a timeline, which are later than all that is rolled up. The
-- caller removes them from the timeline, after `write_rollup`: what fails in between loses none.
local function roll_up_oldest(k, stats, count, starts, limit)
  local timeline, counts = KEYS[k], KEYS[k + FOLDED_COUNTS]
  local events = call('ZRANGE', timeline, '0', count - 1, 'WITHSCORES')
  local rollup = stats.rollup
  if not rollup then
    -- Everything that is still in these keys has expired.
    call('DEL', counts, KEYS[k + FOLDED_IDS])
    rollup = { first = events[2], first_at = tonumber(events[2]), edge_at = -math.huge, total = 0,
      coarse_before = 0, dropped = 0 }
    stats.rollup = rollup
  end
  local ends, replaced = {}, nil
  for i = 1, #events, 2 do
    local id, at, at_number = events[i], events[i + 1], tonumber(events[i + 1])
    add_recent_id(k, rollup, id, at_number, limit)
    if at_number < rollup.edge_at then
      -- Another writer has put it there.
      roll_up_late(rollup, nil, at, at_number)
    else
      if at_number - at_number % bucket_seconds(at_number, starts[7]) > rollup.edge_at then
        table.insert(ends, at)
        table.insert(ends, 0)
      elseif #ends == 0 then
        replaced = rollup.total
        ends = { at, 0 }
      end
      rollup.total = rollup.total + 1
      rollup.edge, rollup.edge_at = at, at_number
      ends[#ends - 1], ends[#ends] = at, rollup.total
    end
  end
  -- Without an effect: a user who may not call it must not leave events in both places.
  call('ZREMRANGEBYRANK', timeline, '1', '0')
  -- First the commands that fail if a key is of a foreign type.
  call_in_parts('ZADD', counts, ends)
  if replaced then
    call('ZREM', counts, replaced)
  end
end

-- Adds the late events to their buckets, and so to all running totals after them.
local function add_late(k, rollup, starts)
  local counts, late = KEYS[k + FOLDED_COUNTS], rollup.late
  table.sort(late, function(a, b) return a.number < b.number end)
  local from = late[1].at
  local total = rolled_up_before(k, from)
  local after = call('ZRANGEBYSCORE', counts, from, '+inf', 'WITHSCORES')
  local ends, added, newest = {}, 0, -math.huge
  for i = 1, #after, 2 do
    local ends_at = tonumber(after[i + 1])
    while late[added + 1] and late[added + 1].number <= ends_at do
      local event = late[added + 1]
      local seconds = bucket_seconds(event.number, starts[7])
      local start = event.number - event.number % seconds
      added = added + 1
      if ends_at - ends_at % seconds > start then
        -- A bucket of its own, or of the late event before it.
        if start > newest then
          table.insert(ends, 0)
          table.insert(ends, 0)
        end
        ends[#ends - 1], ends[#ends], newest = event.at, total + added, event.number
      end
    end
    total = tonumber(after[i])
    table.insert(ends, after[i + 1])
    table.insert(ends, total + added)
    newest = ends_at
  end
  -- Without an effect, as no total is a line feed: a full Redis, or one that denies it to the user,
  -- must refuse it before totals are taken out.
  call('ZADD', counts, 'XX', '0', '\n')
  call('ZREMRANGEBYSCORE', counts, from, '+inf')
  call_in_parts('ZADD', counts, ends)
  rollup.total = rollup.total + added
end

-- Makes the buckets of more than a day ago coarse, once an hour, and removes the expired ones but
-- for the newest of them, which holds the number of events before the others.
local function tidy(k, rollup, starts)
  local counts = KEYS[k + FOLDED_COUNTS]
  local coarse_before = starts[7] - starts[7] % COARSE_SECONDS
  if coarse_before <= rollup.coarse_before then
    return
  end
  local buckets = call('ZRANGEBYSCORE', counts, rollup.coarse_before, '(' .. coarse_before,
    'WITHSCORES')
  local merged = {}
  for i = 1, #buckets - 2, 2 do
    local ends_at, next_ends_at = tonumber(buckets[i + 1]), tonumber(buckets[i + 3])
    if next_ends_at - next_ends_at % COARSE_SECONDS <= ends_at then
      table.insert(merged, buckets[i])
    end
  end
  call_in_parts('ZREM', counts, merged)
  local expired = call('ZCOUNT', counts, '-inf', '(' .. starts[1])
  if expired > 1 then
    call('ZREMRANGEBYRANK', counts, '0', expired - 2)
  end
  rollup.coarse_before = coarse_before
end

-- Writes a roll-up that has changed. To be called once for each anomaly.
local function write_rollup(k, rollup, starts, kept_seconds)
  if rollup.late then
    add_late(k, rollup, starts)
  end
  tidy(k, rollup, starts)
  local ids = {}
  if rollup.dropped or rollup.dropped_now then
    ids = { DROPPED, string.format('%d', dropped_until(k, rollup)) }
  end
  for field in pairs(rollup.changed_ids) do
    table.insert(ids, field)
    table.insert(ids, rollup.ids[field])
  end
  call('EXPIRE', KEYS[k + FOLDED_COUNTS], kept_seconds)
  call('SET', KEYS[k + FOLDED], rollup.first .. ' ' .. rollup.edge .. ' ' .. rollup.total .. ' '
    .. string.format('%d', rollup.coarse_before), 'EX', kept_seconds)
  -- After the counts: an event whose id is remembered must be counted.
  call('HSET', KEYS[k + FOLDED_IDS], unpack(ids))
  call('EXPIRE', KEYS[k + FOLDED_IDS], kept_seconds)
end
