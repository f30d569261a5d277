-- Keeps timelines bounded; inserted between library.lua and record.lua. The newest events of an
-- anomaly are in its timeline, each with its id. Older events are rolled up, oldest first, into
-- running totals: a member of `folded_counts` is the number of all rolled-up events up to the end
-- of a bucket, and its score is the time of the newest event in the bucket. So any window takes one
-- or two look-ups, whatever the volume. domain/rollup.rs does the same in memory, and
-- rollup_vectors.json in tests/data has the expected results of both.
--
-- A late event, which is older than the newest rolled-up event, stays in the timeline like any
-- other until it is rolled up with the oldest: adding an event to a past bucket changes all totals
-- after it, so it is done for many events at once.
--
-- `folded`         "<oldest> <newest> <number> <coarse before>", the last is the start of an hour
-- `folded_counts`  the running totals
-- `folded_ids`     a hash of 64 fields with the ids of the last events that were rolled up, by
--                  which a late copy is recognised: ten bytes each, 48 bits of the id's SHA-1 and
--                  the event's time in seconds. The field `dropped` is "<time> <number>": ids of
--                  later events were never dropped, as of that number in `folded`

local ID_FIELDS, ID_BYTES, DROPPED = 64, 10, 'dropped'
-- The size of a field: its share of the ids, this many standard deviations (ids are spread by a
-- hash), and some more. So a field overflows before the limit is reached only once in ten million
-- times.
local DEVIATIONS, MORE_ROOM = 6, 8
-- The minimum number of ids per field in versions that did not write `dropped`.
local ONCE_PER_FIELD = 8
-- Maximum number of arguments of one command: Lua's stack holds some thousands.
local MAX_ARGUMENTS = 2000
-- Maximum number of buckets that one call makes coarse. A roll-up has some 1,500.
local MAX_TIDIED = 2000

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

-- Returns the ids of a field, which is read once per call.
local function ids_of(k, rollup, field)
  rollup.ids = rollup.ids or {}
  local ids = rollup.ids[field] or call('HGET', KEYS[k + FOLDED_IDS], field) or ''
  rollup.ids[field] = ids
  return ids
end

-- Returns the time after which no id was dropped. If the field is missing, or events were rolled up
-- since it was written, an older writer may have dropped the id of any event.
local function dropped_until(k, rollup)
  if not rollup.dropped then
    local text = call('HGET', KEYS[k + FOLDED_IDS], DROPPED) or ''
    local dropped, total = string.match(text, '^(%d+) (%d+)$')
    if tonumber(total) ~= rollup.total then
      dropped = rollup.total > ONCE_PER_FIELD and math.floor(rollup.edge_at) + 1 or 0
    end
    rollup.dropped = tonumber(dropped)
  end
  return rollup.dropped
end

-- Returns true if the id of an event that must stay is remembered.
local function has_recent_id(k, rollup, id, kept_from)
  local field, bytes = id_field(id)
  local ids = ids_of(k, rollup, field)
  local index = string.find(ids, bytes, 1, true)
  while index do
    -- Seconds were rounded down when they were stored, and are rounded up here.
    if index % ID_BYTES == 1
      and must_stay(struct.unpack('>I4', ids, index + 6) + 1, kept_from, MONTH_SECONDS) then
      return true
    end
    index = string.find(ids, bytes, index + 1, true)
  end
  return false
end

-- Adds the id of a rolled-up event to `new_ids`, which `write_ids` writes.
local function add_recent_id(new_ids, id, at)
  local field, bytes = id_field(id)
  local ids = new_ids[field] or {}
  ids[#ids + 1] = bytes
  ids[#ids + 1] = struct.pack('>I4', math.floor(at))
  new_ids[field] = ids
end

-- Adds ids to their fields, and drops the oldest ids of a full field.
local function write_ids(k, rollup, new_ids, limit, kept_seconds)
  local share = limit / ID_FIELDS
  local max_bytes = math.ceil(share + DEVIATIONS * math.sqrt(share) + MORE_ROOM) * ID_BYTES
  local dropped, written = dropped_until(k, rollup), { DROPPED, '' }
  for field, added in pairs(new_ids) do
    local ids = ids_of(k, rollup, field) .. table.concat(added)
    for entry = 1, #ids - max_bytes, ID_BYTES do
      -- Seconds are rounded down when they are stored, and rounded up here.
      dropped = math.max(dropped, struct.unpack('>I4', ids, entry + 6) + 1)
    end
    rollup.ids[field] = string.sub(ids, -max_bytes)
    written[#written + 1] = field
    written[#written + 1] = rollup.ids[field]
  end
  rollup.dropped = dropped
  written[2] = string.format('%d %d', dropped, rollup.total)
  call('HSET', KEYS[k + FOLDED_IDS], unpack(written))
  call('EXPIRE', KEYS[k + FOLDED_IDS], kept_seconds)
end

-- Returns the end of the base (as text and as number), if there is one: the first bucket, after
-- earlier buckets were removed. Its total includes their events. So it takes all events before its
-- end, and no later one: otherwise, all of them would count again for a window that begins before
-- its new end.
local function base_of(k, rollup)
  local ends = call('ZRANGE', KEYS[k + FOLDED_COUNTS], '0', '0', 'WITHSCORES')[2]
  local ends_at = tonumber(ends)
  if ends_at and rollup.first_at < ends_at - ends_at % COARSE_SECONDS then
    return ends, ends_at
  end
end

-- Adds events, oldest first, to their buckets, and thereby to all totals after them. Returns the
-- number of buckets that were read.
local function add_to_buckets(k, rollup, events, starts)
  local counts, count = KEYS[k + FOLDED_COUNTS], #events / 2
  local first_at = tonumber(events[2])
  local from = string.format('%.6f', first_at - first_at % bucket_seconds(first_at, starts[7]))
  local base, base_at = base_of(k, rollup)
  if base and first_at <= base_at then
    from = base
  end
  -- The first of these buckets may be before the oldest event that belongs to it.
  local total = rolled_up_before(k, from)
  local after = call('ZRANGEBYSCORE', counts, from, '+inf', 'WITHSCORES')
  local ends, added, newest = {}, 0, -math.huge
  for i = 1, #after + 2, 2 do
    local ends_at = tonumber(after[i + 1]) or math.huge
    while added < count and tonumber(events[added * 2 + 2]) <= ends_at do
      local at = events[added * 2 + 2]
      local at_number = tonumber(at)
      local seconds = bucket_seconds(at_number, starts[7])
      local start = at_number - at_number % seconds
      added = added + 1
      if ends_at ~= base_at
        and (ends_at == math.huge or ends_at - ends_at % seconds > start) then
        -- The event does not belong to the bucket that ends next, but to a new bucket or to the one
        -- before.
        if start > newest then
          table.insert(ends, 0)
          table.insert(ends, 0)
        end
        ends[#ends - 1], ends[#ends], newest = at, total + added, at_number
      end
    end
    if after[i] then
      total = tonumber(after[i])
      if ends_at - ends_at % FINE_SECONDS > newest then
        table.insert(ends, 0)
        table.insert(ends, 0)
      end
      -- Otherwise, an older version has created several buckets for two minutes, which become one.
      ends[#ends - 1], ends[#ends] = after[i + 1], total + added
      newest = ends_at ~= base_at and ends_at or -math.huge
    end
  end
  -- Has no effect, because no total is a line feed: a full Redis, or one that denies the command to
  -- the user, must refuse it before totals are removed.
  call('ZADD', counts, 'XX', '0', '\n')
  call('ZREMRANGEBYSCORE', counts, from, '+inf')
  call_in_parts('ZADD', counts, ends)
  return #ends / 2
end

-- Makes the buckets of more than a day ago coarse, once an hour, and removes the expired ones
-- except the newest, which becomes the base. (If the base and the next bucket are in the same hour
-- and become one, both have expired: hours expire as a whole, and so does a base when it is made.)
local function tidy(k, rollup, starts)
  local counts = KEYS[k + FOLDED_COUNTS]
  local coarse_before = starts[7] - starts[7] % COARSE_SECONDS
  if coarse_before <= rollup.coarse_before then
    return
  end
  local buckets = call('ZRANGEBYSCORE', counts, rollup.coarse_before, '(' .. coarse_before,
    'WITHSCORES', 'LIMIT', '0', MAX_TIDIED)
  local merged = {}
  for i = 1, #buckets - 2, 2 do
    local ends_at, next_ends_at = tonumber(buckets[i + 1]), tonumber(buckets[i + 3])
    if next_ends_at - next_ends_at % COARSE_SECONDS <= ends_at then
      table.insert(merged, buckets[i])
    end
  end
  call_in_parts('ZREM', counts, merged)
  local expired = math.min(call('ZCOUNT', counts, '-inf', '(' .. starts[1]), MAX_TIDIED)
  if expired > 1 then
    call('ZREMRANGEBYRANK', counts, '0', expired - 2)
  end
  if #buckets == MAX_TIDIED * 2 then
    -- There may be more, even in the hour of the last one. The next call continues.
    local last_at = tonumber(buckets[#buckets])
    coarse_before = math.max(last_at - last_at % COARSE_SECONDS, rollup.coarse_before)
  end
  rollup.coarse_before = coarse_before
end

-- Rolls up the `count` oldest events of a timeline. Returns the work that was done: the number of
-- events and buckets.
local function roll_up_oldest(k, stats, count, starts, recent_ids, kept_seconds)
  local timeline, counts = KEYS[k], KEYS[k + FOLDED_COUNTS]
  -- Has no effect: a user who may not run the command must not leave events in both places.
  call('ZREMRANGEBYRANK', timeline, '1', '0')
  local events = call('ZRANGE', timeline, '0', count - 1, 'WITHSCORES')
  local rollup = stats.rollup
  if not rollup then
    -- Everything that remains in these keys has expired.
    call('DEL', counts, KEYS[k + FOLDED_IDS])
    rollup = { first = events[2], first_at = tonumber(events[2]), edge_at = -math.huge, total = 0,
      coarse_before = 0, dropped = 0 }
  end
  local new_ids = {}
  for i = 1, #events, 2 do
    add_recent_id(new_ids, events[i], tonumber(events[i + 1]))
  end
  -- Runs the commands that fail on keys of a foreign type first.
  for field in pairs(new_ids) do
    ids_of(k, rollup, field)
  end
  dropped_until(k, rollup)
  local buckets = add_to_buckets(k, rollup, events, starts)
  rollup.total = rollup.total + #events / 2
  local newest, newest_at = events[#events], tonumber(events[#events])
  if newest_at > rollup.edge_at then
    rollup.edge, rollup.edge_at = newest, newest_at
  end
  if tonumber(events[2]) < rollup.first_at then
    rollup.first, rollup.first_at = events[2], tonumber(events[2])
  end
  tidy(k, rollup, starts)
  call('EXPIRE', counts, kept_seconds)
  call('SET', KEYS[k + FOLDED], rollup.first .. ' ' .. rollup.edge .. ' ' .. rollup.total .. ' '
    .. string.format('%d', rollup.coarse_before), 'EX', kept_seconds)
  -- Written after the counts: an event whose id is remembered must be counted.
  write_ids(k, rollup, new_ids, recent_ids, kept_seconds)
  call('ZREMRANGEBYRANK', timeline, '0', count - 1)
  return #events / 2 + buckets
end
