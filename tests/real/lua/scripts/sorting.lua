local function seeded(n) local x, t = 12345, {} for i = 1, n do x = (x * 1103515245 + 12345) % 2147483648 t[i] = x % 1000 end return t end
for _, n in ipairs({0, 1, 2, 3, 10, 99, 100, 101, 2500}) do
  local t = seeded(n) table.sort(t)
  for i = 2, n do assert(t[i - 1] <= t[i]) end
  io.write(n, ":", tostring(t[1]), "..", tostring(t[n]), " ")
end print()
local t = seeded(50) table.sort(t, function(a, b) return a > b end) print(table.concat(t, " "))
local words = {"pear", "Apple", "fig", "apple", "Fig", "", "banana", "a\0b", "a"} table.sort(words) for i, w in ipairs(words) do words[i] = ("%q"):format(w) end print(table.concat(words, " "))
print(try(table.sort, {1, "x", 3}), try(table.sort, {3, 2, 1, nil, 5}), try(table.sort, seeded(200), function(a, b) return true end))
print(try(table.sort, {3, 1, 2}, function(a, b) error("in comparator", 0) end), try(table.sort, {3, 1, 2}, "not a function"), try(table.sort, {1, 2, {}}))
local calls = 0 table.sort(seeded(300), function(a, b) calls = calls + 1 return a < b end) print(calls > 300)
local records = {} for i = 1, 40 do records[i] = {key = i % 5, n = i} end
table.sort(records, function(a, b) if a.key ~= b.key then return a.key < b.key end return a.n < b.n end)
for _, r in ipairs(records) do io.write(r.key, "/", r.n, " ") end print()
print(table.unpack(table.move({1, 2, 3, 4, 5}, 2, 4, 3))) print(table.concat(table.move({1, 2, 3}, 1, 3, 5, {9, 9, 9, 9}), ","))
local q = {1, 2, 3} table.insert(q, 4) table.insert(q, 1, 0) print(table.remove(q), table.remove(q, 1), table.concat(q, ","), table.remove({}), try(table.insert, q, 10, 1), try(table.insert, q, 1, 2, 3))
print(select("#", table.unpack({1, nil, 3}, 1, 3)), table.pack(1, nil, 3).n, try(table.unpack, {}, 1, 1e8), try(table.concat, {1, {}, 3}))
