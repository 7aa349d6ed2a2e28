"""What is measured of fastreason, and the pages that say so. Not installed: it runs from a checkout.

    bench_*.py              suites: questions put to us and to peers in turns (`fastreason bench`); bench_budget is a command
                            of its own, with the budget_*.py beside it
    questions, side_by_side, turns, collect, workers, *_worker, hf, peers, reference      how suites run, and the peers
    records, environment, machine_peaks, show, docs, tables, charts                       what they leave, and how it is shown
    history, compare, noise, noise_simulation, self_test                                  what changed, and what is noise
    audit, traffic, counts, cases, launches, machine_code, counting, gpu_check            kernels, without a GPU and on one
    sweeps, sweep_*, scaling, scaling_*, collectives                                      scaling plots; docs/scaling.md
    studies, seeds, fidelity, soundness                                                   pages of docs/results
    memory, steady, tokenizer_agreement, unicode_ranges                                   one check or table each
"""
