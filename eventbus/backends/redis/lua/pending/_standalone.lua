-- alone: put in front of letters where a verb leaves the channel itself untouched.
local OPTIONS = 0
