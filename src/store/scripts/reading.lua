-- Functions that the scripts that read anomalies share, inserted between library.lua and these
-- scripts.

-- Returns the stats of the `i`th element as a text that begins with "known", with the counts of its
-- rule's `windows`, and as `read_stats` in library.lua does; nil if nothing is kept about the
-- anomaly.
local function known_stats(k, starts, texts, i, windows)
  local stats = read_stats(k, starts, nil, texts, i)
  if stats[1] == 0 and not is_known(k) then
    return nil
  end
  stats.newest = stats[1] > 0 and newest_event(k, stats)
  return encode_stats(k, 'known', stats, rule_windows(windows)), stats
end

-- Returns the result of `read` for each of `count` elements, whose texts are read at once. `read`
-- gets the index of the element's first key, the texts, and its number.
local function read_each(count, keys_each, read)
  local texts, results = read_texts(count, keys_each), {}
  for i = 1, count do
    results[i] = protected(read, (i - 1) * keys_each + 1, texts, i)
  end
  return results
end

