"""One page about several runs: what they differ in, how well they did, how they learned, what they drew.

The first half reads (`runs`, `settings`, `series`, `results`, `differences`, `pictures`) and knows no HTML; the second
half writes (`markup`, `axes`, `curves`, `bands`, `tables`, `gallery`, `page`, `style`) and opens no file.
"""
