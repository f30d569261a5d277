-- Keeps timelines bounded; put between library.lua and record.lua. The newest events of an anomaly are in
-- its timeline, each with its id. Older ones are folded, oldest first, into running totals: a member
-- of `folded_counts` is the number of all folded events up to the end of a bucket, its score the time
-- of the newest event in it. So any window is a look-up or two, whatever the volume. What domain/folded.rs
-- does in memory is the same.
--
-- `folded`         "<oldest> <newest> <number> <coarse before>", the last the start of an hour
-- `folded_counts`  the running totals
-- `folded_ids`     a hash of 64 fields: the last ids that were folded, ten bytes each, by which a late
--                  copy is known: 48 bits of its SHA-1, and its event's time in seconds

local ID_FIELDS, ID_BYTES = 64, 10
-- How many arguments a command is given at once: Lua's stack takes some thousands.
local ARGUMENTS = 2000

-- How wide the bucket of an event is that is folded now.
local function bucket_seconds(at, day_at)
  return at < day_at and COARSE_SECONDS or FINE_SECONDS
end

local function call_in_parts(command, key, arguments)
  for from = 1, #arguments, ARGUMENTS do
    call(command, key, unpack(arguments, from, math.min(from + ARGUMENTS - 1, #arguments)))
  end
end

-- The field that an id is in, and the bytes that stand for it.
local function id_place(id)
  local hex = redis.sha1hex(id)
  return tonumber(string.sub(hex, 1, 2), 16) % ID_FIELDS,
    struct.pack('>I6', tonumber(string.sub(hex, 3, 14), 16))
end

-- The ids of a field; read once a call.
local function ids_of(k, folded, field)
  folded.ids = folded.ids or {}
  local ids = folded.ids[field] or call('HGET', KEYS[k + FOLDED_IDS], field) or ''
  folded.ids[field] = ids
  return ids
end

-- Whether an id is remembered, of an event that is inside 30 days.
local function remembers(k, folded, id, starts)
  local field, bytes = id_place(id)
  local ids = ids_of(k, folded, field)
  local place = string.find(ids, bytes, 1, true)
  while place do
    if place % ID_BYTES == 1
      and struct.unpack('>I4', ids, place + 6) >= math.floor(starts[5]) then
      return true
    end
    place = string.find(ids, bytes, place + 1, true)
  end
  return false
end

local function remember(k, folded, id, at, limit)
  local field, bytes = id_place(id)
  local most = math.max(8, math.ceil(limit / ID_FIELDS)) * ID_BYTES
  local ids = ids_of(k, folded, field) .. bytes .. struct.pack('>I4', math.floor(at))
  folded.ids[field] = string.sub(ids, -most)
  folded.changed_ids = folded.changed_ids or {}
  folded.changed_ids[field] = true
end

-- Notes an event that is older than the newest folded one; `settle` adds it to its bucket.
local function fold_late(folded, at, at_number)
  folded.late = folded.late or {}
  table.insert(folded.late, { at = at, number = at_number })
  if at_number < folded.first_at then
    folded.first, folded.first_at = at, at_number
  end
end

-- Folds the `count` oldest events of a timeline, which are later than all that is folded.
local function fold_oldest(k, stats, count, starts, limit)
  local timeline, counts = KEYS[k], KEYS[k + FOLDED_COUNTS]
  local events = call('ZRANGE', timeline, '0', count - 1, 'WITHSCORES')
  local folded = stats.folded
  if not folded then
    -- What is there still has left.
    call('DEL', counts, KEYS[k + FOLDED_IDS])
    folded = { first = events[2], first_at = tonumber(events[2]), edge_at = -math.huge, total = 0,
      tidied = 0 }
    stats.folded = folded
  end
  local ends, replaced = {}, nil
  for i = 1, #events, 2 do
    local id, at, at_number = events[i], events[i + 1], tonumber(events[i + 1])
    remember(k, folded, id, at_number, limit)
    if at_number < folded.edge_at then
      -- Another writer has put it there.
      fold_late(folded, at, at_number)
    else
      if at_number - at_number % bucket_seconds(at_number, starts[7]) > folded.edge_at then
        table.insert(ends, at)
        table.insert(ends, 0)
      elseif #ends == 0 then
        replaced = folded.total
        ends = { at, 0 }
      end
      folded.total = folded.total + 1
      folded.edge, folded.edge_at = at, at_number
      ends[#ends - 1], ends[#ends] = at, folded.total
    end
  end
  -- First what fails where a key is of a foreign type.
  call_in_parts('ZADD', counts, ends)
  if replaced then
    call('ZREM', counts, replaced)
  end
  call('ZREMRANGEBYRANK', timeline, '0', count - 1)
end

-- Adds the late events to their buckets, and so to all running totals after them.
local function add_late(k, folded, starts)
  local counts, late = KEYS[k + FOLDED_COUNTS], folded.late
  table.sort(late, function(a, b) return a.number < b.number end)
  local from = late[1].at
  local total = folded_before(k, from)
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
  call('ZREMRANGEBYSCORE', counts, from, '+inf')
  call_in_parts('ZADD', counts, ends)
  folded.total = folded.total + added
end

-- Makes buckets of more than a day ago those of an hour, once an hour, and forgets those that have left but
-- the newest of them, which says how many had been before the others.
local function tidy(k, folded, starts)
  local counts = KEYS[k + FOLDED_COUNTS]
  local coarse_before = starts[7] - starts[7] % COARSE_SECONDS
  if coarse_before <= folded.tidied then
    return
  end
  local buckets = call('ZRANGEBYSCORE', counts, folded.tidied, '(' .. coarse_before, 'WITHSCORES')
  local merged = {}
  for i = 1, #buckets - 2, 2 do
    local ends_at, next_ends_at = tonumber(buckets[i + 1]), tonumber(buckets[i + 3])
    if next_ends_at - next_ends_at % COARSE_SECONDS <= ends_at then
      table.insert(merged, buckets[i])
    end
  end
  call_in_parts('ZREM', counts, merged)
  local left = call('ZCOUNT', counts, '-inf', '(' .. starts[1])
  if left > 1 then
    call('ZREMRANGEBYRANK', counts, '0', left - 2)
  end
  folded.tidied = coarse_before
end

-- Writes down what has been folded. To be called once for each anomaly.
local function write_folded(k, folded, starts, kept_seconds)
  if folded.late then
    add_late(k, folded, starts)
  end
  tidy(k, folded, starts)
  local ids = {}
  for field in pairs(folded.changed_ids) do
    table.insert(ids, field)
    table.insert(ids, folded.ids[field])
  end
  call('HSET', KEYS[k + FOLDED_IDS], unpack(ids))
  call('SET', KEYS[k + FOLDED], folded.first .. ' ' .. folded.edge .. ' ' .. folded.total .. ' '
    .. string.format('%d', folded.tidied), 'EX', kept_seconds)
  call('EXPIRE', KEYS[k + FOLDED_COUNTS], kept_seconds)
  call('EXPIRE', KEYS[k + FOLDED_IDS], kept_seconds)
end
