"""Sites learn from one another without sharing an image: each sends how its weights moved, signed and small.

update.py        what a site sends: how its shared weights moved, what mattered, on how many images
compression.py   an update as three bits a number; what rounding loses is sent the next time
signature.py     who sent it (Ed25519)
aggregators.py   several updates to one: weighted mean, trimmed mean, soft vote
merging.py       clip, aggregate, and the merged model as a package
proximal.py      on the site's side: training that stays near the round's base (FedProx)
"""
