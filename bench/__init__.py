"""What is measured of fastreason, and the pages that say so. Not installed: it runs from a checkout.

A room says in its first line what it holds; `fastreason bench` runs suites/ through harness/.
"""
