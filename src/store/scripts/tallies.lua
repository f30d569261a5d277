-- Tallies anomalies without changing anything.
--
-- KEYS  for each anomaly: timeline, repair_count, permanent_fix, metadata, repair_history
-- ARGV  1-4  the starts of the windows of 30 days, 7 days, 24 hours, 1 hour (Unix seconds)
-- Gives for each anomaly: {'known', tally...} or {'unknown'} or {'error', message}
--
-- A script and not single commands: all figures of an answer are of the same moment.

local starts = { ARGV[1], ARGV[2], ARGV[3], ARGV[4] }

local function read(names)
  local result = tally(names, starts)
  if result[1] == 0 and not is_known(names) then
    return { 'unknown' }
  end
  return { 'known', unpack(result) }
end

local results = {}
for i = 1, elements(5, 4, 0) do
  results[i] = guarded(read, names_of(i, 5))
end
return results
