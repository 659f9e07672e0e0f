"""Publisher: reads adaptations, candidates and examples, writes releases and audit records.

It decides whether a candidate may serve, on images that were never trained on: first at the gate, held
against its base on held-back images from before and after the change; then as a canary on some devices, held
against what the base would have said of the same images. Every decision is a link of a hash chain.
"""
