"""Why a service answers or does not: from facts to what is missing. Pure; controlplane/api/diagnosis.py gathers.

selector ─► pods ─► ready ─► endpoints ─► every node's rules ─► its kernel        (backing.py, nodes.py)
from A to B: which node decides, who answers, which link is missing               (paths.py)
"""
