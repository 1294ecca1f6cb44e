"""The page's look. Colours of runs: Okabe and Ito's, which the colour-blind tell apart, lighter ones on dark ground."""

STYLE = """
:root {
  --ground: #fcfcfb; --raised: #ffffff; --ink: #1c1e21; --soft: #5a6069; --rule: #e3e4e1; --tick: #8b9098;
  --link: #0b5cad; --mark: #0a6b4f; --mark-ground: #e2f3ec; --note: #fbf4e2; --note-ink: #5b4a12;
  --c0: #0072b2; --c1: #d55e00; --c2: #009e73; --c3: #b0508d;
  --c4: #3d9fdc; --c5: #c98700; --c6: #6f57b8; --c7: #5f6368;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #15171a; --raised: #1c1f23; --ink: #e8e8e4; --soft: #a3a9b2; --rule: #30343a; --tick: #7d848e;
    --link: #7fb8f0; --mark: #7fdcb9; --mark-ground: #173a2f; --note: #33301f; --note-ink: #ead9a0;
    --c0: #4fa9e4; --c1: #f5853f; --c2: #2fc79b; --c3: #e294c4;
    --c4: #9bd6fb; --c5: #f0b83a; --c6: #ad98f0; --c7: #b3b8be;
  }
}
* { box-sizing: border-box; }
html { scroll-padding-top: 4rem; -webkit-text-size-adjust: 100%; }
@media (prefers-reduced-motion: no-preference) { html { scroll-behavior: smooth; } }
body {
  margin: 0; background: var(--ground); color: var(--ink); overflow-wrap: break-word;
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Helvetica Neue", Arial, sans-serif;
  font-variant-numeric: tabular-nums;
}
main, footer, header nav { max-width: 78rem; margin: 0 auto; padding: 0 1.25rem; }
header {
  position: sticky; top: 0; z-index: 2; border-bottom: 1px solid var(--rule);
  background: color-mix(in srgb, var(--ground) 92%, transparent); backdrop-filter: blur(8px);
}
header nav { overflow-x: auto; scrollbar-width: none; }
header ul { display: flex; gap: 1.5rem; margin: 0; padding: 0; list-style: none; white-space: nowrap; }
header a { display: block; padding: .75rem 0; color: var(--soft); text-decoration: none; font-size: .9rem; }
header a:hover, header a:focus { color: var(--ink); }
a { color: var(--link); }
:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
.skip { position: absolute; left: -100vw; }
.skip:focus { left: 1rem; top: .5rem; z-index: 3; background: var(--raised); padding: .5rem 1rem; }
h1 { font-size: 1.75rem; line-height: 1.2; font-weight: 650; letter-spacing: -.015em; margin: 2.25rem 0 .4rem; }
h2 { font-size: 1.25rem; line-height: 1.3; font-weight: 650; letter-spacing: -.01em; margin: 0 0 .9rem; }
h3 { font-size: 1rem; font-weight: 600; margin: 0; }
p { margin: .5rem 0 1rem; max-width: 46rem; }
.summary { color: var(--soft); margin-bottom: 0; max-width: none; }
main > section { margin-top: 2.75rem; padding-top: 1.75rem; border-top: 1px solid var(--rule); }
main > section > section { margin-top: 1.75rem; }
.quiet, small, figcaption small { color: var(--soft); }
.quiet { font-size: .875rem; }
small { font-size: .8125rem; font-weight: 400; }
.note { background: var(--note); color: var(--note-ink); padding: .6rem .9rem; border-radius: 6px; font-size: .9rem; }
.notes { padding: 0; list-style: none; font-size: .9rem; color: var(--soft); }
.notes li { margin: .35rem 0; }
.unseen { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
code, pre { font: .85em/1.5 ui-monospace, "SF Mono", "Cascadia Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
pre {
  background: var(--raised); border: 1px solid var(--rule); border-radius: 6px;
  padding: .7rem .9rem; margin: .25rem 0 1.25rem;
  white-space: pre-wrap; overflow-wrap: anywhere; font-size: .8125rem;
}
pre code { font-size: inherit; }
.box { overflow-x: auto; margin: 0 0 .75rem; position: relative; }
table { border-collapse: collapse; font-size: .9rem; min-width: 100%; }
th, td {
  text-align: left; vertical-align: baseline; padding: .5rem 1.5rem .5rem 0; border-bottom: 1px solid var(--rule);
}
th:last-child, td:last-child { padding-right: 0; }
thead th { color: var(--soft); font-weight: 500; font-size: .8125rem; white-space: nowrap; }
tbody th { font-weight: 500; white-space: nowrap; }
tbody th.long { white-space: normal; min-width: 14rem; max-width: 20rem; overflow-wrap: anywhere; }
td small { display: block; }
td { max-width: 30rem; overflow-wrap: break-word; }
td.long { min-width: 14rem; }
tbody th, thead th:first-child { position: sticky; left: 0; z-index: 1; background: var(--ground); }
.number { text-align: right; white-space: nowrap; }
.error { color: var(--soft); font-weight: 400; }
.mark {
  font-size: .75rem; font-weight: 600; color: var(--mark); background: var(--mark-ground);
  border-radius: 4px; padding: .1rem .4rem;
}
.mark.near { background: none; box-shadow: inset 0 0 0 1px var(--mark); font-weight: 500; }
details { margin: .75rem 0; }
summary { cursor: pointer; color: var(--link); font-size: .9rem; padding: .25rem 0; }
details[open] > summary { margin-bottom: .6rem; }
.swatch { width: 22px; height: 10px; margin-right: .5rem; vertical-align: baseline; flex: none; }
.panels { display: grid; gap: 2rem 1.75rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 22rem), 1fr)); }
figure { margin: 0; min-width: 0; break-inside: avoid; }
.panel figcaption { margin-bottom: .4rem; min-height: 3.1em; line-height: 1.4; }
.panel figcaption small { display: block; }
.chart { display: block; width: 100%; height: auto; overflow: visible; }
.chart text, .scale text { font-size: 11px; fill: var(--soft); }
.chart .what { font-size: 11px; fill: var(--ink); }
.end { text-anchor: end; }
.middle { text-anchor: middle; }
.rule { stroke: var(--rule); fill: none; }
.tick { stroke: var(--tick); fill: none; }
.line { fill: none; stroke-width: 1.6; stroke-linejoin: round; stroke-linecap: round; }
.line.thick { stroke-width: 3; }
.faint { fill: none; stroke-width: 1; opacity: .4; }
.many .faint { opacity: .15; }
.map rect, .scale rect { shape-rendering: crispEdges; }
.band { stroke: none !important; opacity: .16; }
.dot { stroke: none !important; }
.touch { fill: transparent; }
.touch:hover { fill: var(--ink); fill-opacity: .25; }
.scale { height: 1rem; width: 23.5rem; max-width: 100%; vertical-align: -.2rem; }
.d1 { stroke-dasharray: 6 4; } .d2 { stroke-dasharray: 1.5 4; }
.legend { list-style: none; margin: .4rem 0 0; padding: 0; font-size: .8125rem; line-height: 1.5; }
.legend li { display: flex; align-items: baseline; }
.legend .value { margin-left: auto; padding-left: 1rem; color: var(--soft); white-space: nowrap; }
.cards { display: grid; gap: 1.75rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 17rem), 1fr)); }
.cards.wide { grid-template-columns: repeat(auto-fill, minmax(min(100%, 28rem), 1fr)); }
.card figcaption { margin-bottom: .5rem; font-size: .9rem; font-weight: 500; }
.card figcaption small { display: block; margin-left: 30px; }
.card img { width: 100%; height: auto; border-radius: 4px; display: block; background: #808080; }
.pixels { image-rendering: pixelated; }
.missing {
  color: var(--soft); border: 1px dashed var(--rule); border-radius: 4px;
  padding: 1.5rem 1rem; font-size: .9rem; margin: 0;
}
.film { display: flex; gap: .75rem; overflow-x: auto; list-style: none; margin: 0 0 1rem; padding: 0 0 .5rem; }
.film li { flex: 0 0 8rem; text-align: center; }
.film img { width: 100%; height: auto; display: block; border-radius: 3px; }
footer { margin-top: 3rem; padding-bottom: 2rem; color: var(--soft); font-size: .8125rem; }
"""
STYLE += (
    "".join(f".c{k} {{ stroke: var(--c{k}); }} .band.c{k}, .dot.c{k} {{ fill: var(--c{k}); }}\n" for k in range(8))
    + """
@media (max-width: 40rem) {
  main, footer, header nav { padding: 0 1rem; }
  h1 { font-size: 1.4rem; margin-top: 1.5rem; }
  .chart text, .chart .what { font-size: 12.5px; }
  .panel figcaption { min-height: 0; }
  th, td { padding-right: 1rem; }
  tbody th, tbody th.long { white-space: normal; min-width: 8.75rem; max-width: 42vw; overflow-wrap: anywhere; }
}
@media print {
  header, .skip { display: none; }
  body { background: #fff; font-size: 10pt; }
  .panels { grid-template-columns: 1fr 1fr; }
  .cards { grid-template-columns: 1fr 1fr; }
  .box { overflow: visible; }
  main > section { break-before: auto; }
  h2, h3, figcaption { break-after: avoid; }
}
"""
)
