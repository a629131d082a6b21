-- Asked one chunk a line; answers with its results, or the error, and a line ".".
io.stdout:setvbuf("line")
print("ready")
for line in io.lines() do
  local chunk, message = load(line)
  local results = table.pack(pcall(chunk or error, message))
  for i = 1, results.n do io.write(tostring(results[i]), "\n") end
  print(".")
end
