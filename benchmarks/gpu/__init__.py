"""Check and measure training and prediction on a GPU: ``python -m benchmarks.gpu --out gpu.json``.

It needs no data and no weights. Every part has a process of its own, which is ended after a number of seconds: a part
that fails, hangs or breaks the device leaves a row that says so, and the others go on. Every row is in the file as soon
as it is measured. Parts, in this order:

machine      versions, matrix products, the price of a launch
numerics     losses and gradients of every method against the CPU in float32, with the same choices
golden       a case of every method against the numbers of its published code
waits        no step may wait for the device, and what the host decides before it once at most
steps        every method's step: eager, as a CUDA graph, and IVLP as the reference codes compute it
attention    one class alone or groups behind a mask, by kernel
evaluation   images a second through the prompted vision tower
workflow     two methods on a dataset of the embedded experiment, by Snakemake
processes    several trainings at once, without and with NVIDIA's multi-process service
"""
