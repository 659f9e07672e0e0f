"""Federation: reads sites' updates, writes rounds and what was merged in them.

It decides whose update counts, when a round is closed, and what its sites have learned together. Images stay
where they are; so do norms and scales. What a site makes of a merged model is a candidate like any other.
"""
