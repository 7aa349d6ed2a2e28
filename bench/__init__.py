"""What is measured of fastreason, and the pages that say so. Not installed: it runs from a checkout.

suites, `fastreason bench`   bench_*.py: questions put to us and to peers in turns
how suites run               questions, side_by_side, turns, collect, workers, *_worker, hf, peers, reference
what they leave              records, environment, machine_peaks, show, docs, tables, charts
what changed                 history, compare, noise, noise_simulation, self_test
kernels                      audit, traffic, counts, cases, launches, machine_code, counting, gpu_check
fixed budgets of FLOP        bench_budget, a command of its own, and budget_*
scaling                      sweeps and sweep_*: plots; scaling, scaling_* and collectives: docs/scaling.md
pages of docs/results        studies, seeds, fidelity, soundness
one check or table each      memory, steady, tokenizer_agreement, unicode_ranges
"""
