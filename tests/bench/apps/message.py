"""What all publish: as long as a line of a chat."""

TEXT = '{"from":"alice","message":"' + "x" * 72 + '"}'
