-- Counts the events of anomalies since several times, without changing anything.
--
-- KEYS     for each anomaly: timeline, repair_count, permanent_fix, metadata, folded,
--          folded_counts, folded_ids, repair_history
-- ARGV     1  the times, oldest first, with spaces between them (Unix seconds)
-- Returns  for each anomaly a text: "known" and for each time the number of events from it on,
--          "unknown", or "error" and a message
--
-- A script and not single commands: an anomaly would take two dozen of them.

local KEYS_EACH, FIXED_ARGUMENTS, ARGUMENTS_EACH = 8, 1, 0

local starts, starts_at = {}, {}

local function rolled_up_since(k, rollup, i)
  if starts_at[i] <= rollup.first_at then
    return rollup.total
  elseif starts_at[i] <= rollup.edge_at then
    return rollup.total - rolled_up_before(k, starts[i])
  end
  return 0
end

local function read(k, texts, i)
  local timeline = KEYS[k]
  local oldest = tonumber(call('ZRANGE', timeline, '0', '0', 'WITHSCORES')[2])
  local rollup = texts[i * 3] and read_rollup(texts[i * 3])
  if not (oldest or rollup) and not is_known(k) then
    return 'unknown'
  end
  local newest = oldest and tonumber(newest_time(timeline))
  local length = oldest and call('ZCARD', timeline)
  local counts = {}
  for j = 1, #starts do
    local count = 0
    -- Most anomalies are quiet, and need no command for each time.
    if oldest and starts_at[j] <= oldest then
      count = length
    elseif newest and starts_at[j] <= newest then
      count = call('ZCOUNT', timeline, starts[j], '+inf')
    end
    counts[j] = rollup and count + rolled_up_since(k, rollup, j) or count
  end
  return 'known ' .. table.concat(counts, ' ')
end

return run(function()
  local count = elements(KEYS_EACH, FIXED_ARGUMENTS, ARGUMENTS_EACH)
  for start in string.gmatch(ARGV[1], '%S+') do
    starts[#starts + 1], starts_at[#starts + 1] = start, tonumber(start)
  end
  return read_each(count, KEYS_EACH, read)
end)
