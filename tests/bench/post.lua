-- For wrk: POST a body of so many bytes.
--
--     wrk -s post.lua URL -- BYTES
--
-- wrk calls init() before it makes the one request that it sends again and again.

function init(args)
  wrk.method = "POST"
  wrk.headers["Content-Type"] = "application/octet-stream"
  wrk.body = string.rep("x", tonumber(args[1]))
end
