/** The style of the report. Colours follow the reader's light or dark setting; colour is never the only sign of a meaning. */
export const STYLE = `
:root { color-scheme: light dark; --paper: #fbfaf7; --card: #fff; --ink: #1d2126; --soft: #5b6470; --line: #dfdcd4;
  --accent: #0b6b5d; --second: #b4530a; --right: #0b6b3a; --wrong: #a3271f; --bar: #cfe6e1; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #15181c; --card: #1d2126; --ink: #e9e7e2; --soft: #a3abb5; --line: #343a42;
    --accent: #5cc8b5; --second: #f0a35e; --right: #6fd39b; --wrong: #ff9489; --bar: #24504a; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 2rem 1rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .3rem; }
h2 { font-size: 1.15rem; margin: 2.6rem 0 .8rem; } h3 { font-size: 1rem; margin: 1.6rem 0 .2rem; }
p, figcaption { max-width: 46rem; }
.lead, .soft { color: var(--soft); }
code, pre, .mono { font-family: ui-monospace, 'SF Mono', Menlo, Consolas, monospace; font-size: .86em; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .8rem; margin-top: 1.6rem; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: .8rem 1rem; }
.card b { display: block; font-size: 1.7rem; line-height: 1.2; font-variant-numeric: tabular-nums; }
.card span { color: var(--soft); font-size: .86rem; }
.verdict { margin-top: 1.4rem; padding: .6rem 1rem; border-left: 4px solid var(--second); background: var(--card); overflow-wrap: anywhere; }
.verdict p { margin: .2rem 0; } .verdict.good { border-color: var(--right); } .verdict.good b { color: var(--right); }
.wide { overflow-x: auto; border: 1px solid var(--line); border-radius: .6rem; background: var(--card); }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .45rem .8rem; text-align: right; border-top: 1px solid var(--line); white-space: nowrap; }
thead th { border-top: 0; color: var(--soft); font-weight: 500; }
th:first-child, .note { text-align: left; } tbody th { font-weight: 500; }
td.note { color: var(--soft); font-size: .86rem; white-space: normal; min-width: 9rem; }
tr.model th, tr.model td { font-weight: 700; }
td.bar { background: linear-gradient(to right, var(--bar) var(--share), transparent var(--share)); min-width: 6rem; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: .8rem; }
.chart { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: .8rem; }
.chart svg { display: block; width: 100%; height: auto; } .chart .key svg { display: inline; width: 28px; }
.key { margin-left: 1rem; color: var(--soft); font-size: .86rem; display: inline-flex; gap: .4rem; align-items: center; }
.grid { stroke: var(--line); } .tick { fill: var(--soft); font-size: 12.5px; }
.line { fill: none; stroke: var(--accent); stroke-width: 1.6; stroke-linejoin: round; }
.marks { fill: none; stroke: var(--second); stroke-width: 1.6; stroke-dasharray: 5 4; } .mark { fill: var(--second); }
.samples { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 18.5rem), 1fr)); gap: .8rem;
  list-style: none; margin: 0; padding: 0; }
.samples li { display: flex; gap: .8rem; background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: .7rem; }
.samples img, .samples .no-image { flex: none; width: 88px; height: 88px; object-fit: contain; background: #fff;
  border-radius: .4rem; color: #5b6470; font-size: .8rem; text-align: center; }
.samples dl { margin: 0; font-size: .9rem; min-width: 0; overflow-wrap: anywhere; }
.samples dt { color: var(--soft); font-size: .75rem; } .samples dd { margin: 0 0 .25rem; line-height: 1.3; }
.right::before { content: '✓ '; color: var(--right); font-weight: 700; }
.wrong::before { content: '✗ '; color: var(--wrong); font-weight: 700; }
.hidden { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
pre { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: .8rem 1rem; margin: .4rem 0 1rem; }
details { margin-top: .8rem; } summary { cursor: pointer; font-weight: 500; }
.facts { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.2rem; margin: .6rem 0; }
.facts dt { color: var(--soft); } .facts dd { margin: 0; overflow-wrap: anywhere; }
`;
