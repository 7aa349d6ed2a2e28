"""Small gold solutions that the tests damage by hand."""

GOLD = (
    "Define red kite in Alder Field as q; so q = 2. Define grey owl in Alder Field as B; m = q = 2; so B = 3 + m = 3 + "
    "2 = 5. Define total number of birds in Alder Field as T; so T = q + B = 2 + 5 = 7. Answer: 7."
)
REVERSE_TAIL = (
    "We know T = 7, so we have 2*x + 3 = 7 and we solve it through the following steps: Simplifying the equation: "
    "2*x + 3 = 7. Move all terms to one side: 2*x - 4 = 0. Isolate the term with x: 2*x = 4. Divide both sides by 2: "
    "x = 4 / 2. Solution: x = 2. "
)
REVERSE_LAST_STEP = (
    "Define total number of birds in Alder Field as T; so T = x + B = x + x + 3 = 2*x + 3. " + REVERSE_TAIL
)
REVERSE_GOLD = (
    "The question is difficult, so we use equations to solve it. Define red kite in Alder Field as x; we don't know "
    "its value yet but will find it out later. Define grey owl in Alder Field as B; m = x = x; so B = 3 + m = 3 + x = "
    "x + 3. " + REVERSE_LAST_STEP + "Answer: 2."
)
SYMBOLIC_GOLD = "Ba: 2. Be: 3 + Ba = 3 + 2 = 5. B: Ba + Be = 2 + 5 = 7. Answer: 7."
