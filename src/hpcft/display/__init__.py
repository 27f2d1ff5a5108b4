"""What a distillation shows while it runs: boxes on a console, in words of four languages. Text only, no torch."""
