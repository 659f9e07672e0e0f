"""Online learner: reads images, predictions, labels, adaptation requests, releases, a federation's rounds;
writes candidates and updates.

It decides which labelled images a model is fine-tuned on, and when it has become a candidate. Two processors:
`pairing` joins each image with what was served for it and with its late label into an example, by device;
`learning` takes one update a mini-batch of examples while an adaptation is asked for, by site.
"""
