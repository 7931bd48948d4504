"""How the page looks, on wide and narrow screens, by day, by night and on paper."""

STYLE = """
:root{color-scheme:light dark;--paper:#fff;--ink:#1b1f24;--quiet:#59636e;--line:#d5dae0;--shade:#f4f6f8;--accent:#0b5cad;
--ground:var(--paper);--edge:#1b1f2466}
@media (prefers-color-scheme:dark){:root{--paper:#14171b;--ink:#e4e7eb;--quiet:#9aa4af;--line:#363c44;--shade:#1d2126;--accent:#7db7f5;
--edge:#e4e7eb66;
DARK}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);
font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Liberation Sans",sans-serif}
main{max-width:60rem;margin:0 auto;padding:1.5rem 1rem 4rem}
h1,h2,h3{overflow-wrap:anywhere}
h1{font-size:1.75rem;line-height:1.25;margin:.5rem 0}
h2{font-size:1.3rem;margin:2.8rem 0 .6rem;padding-top:.6rem;border-top:1px solid var(--line)}
h3{font-size:1.05rem;margin:1.8rem 0 .4rem}
p,li,dd{max-width:46rem;overflow-wrap:anywhere}
.quiet,figcaption,.caption{color:var(--quiet);font-size:.9rem}
nav ul{display:flex;flex-wrap:wrap;gap:.2rem 1rem;padding:0;margin:.8rem 0;list-style:none}
a{color:var(--accent)}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.3rem 1.2rem;margin:.8rem 0}
dt{color:var(--quiet)}
dd{margin:0}
.scroll{overflow-x:auto;margin:.3rem 0 1rem}
.scroll,pre{background:linear-gradient(to right,var(--ground) 40%,transparent) 0 0/3rem 100%,
linear-gradient(to left,var(--ground) 40%,transparent) 100% 0/3rem 100%,
linear-gradient(to right,var(--edge),transparent) 0 0/1.1rem 100%,
linear-gradient(to left,var(--edge),transparent) 100% 0/1.1rem 100%,var(--ground);
background-repeat:no-repeat;background-attachment:local,local,scroll,scroll,scroll}
.scroll:focus-visible{outline:2px solid var(--accent)}
table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums}
.caption{margin:1.2rem 0 0}
th,td{padding:.25rem .75rem .25rem 0;text-align:left;white-space:nowrap;border-bottom:1px solid var(--line);font-weight:400}
.wrapped td{white-space:normal;min-width:12rem;vertical-align:top}
thead th{color:var(--quiet);border-bottom-width:2px}
.number{text-align:right;padding:.25rem 0 .25rem .75rem}
.strong td,.strong th{font-weight:700}
figure{margin:1.6rem 0 2.4rem}
figure svg{display:block;width:100%;height:auto;fill:var(--c000000,#000)}
svg.narrow{display:none}
figcaption{max-width:46rem;margin-top:.5rem}
figcaption b{color:var(--ink)}
details{margin:.8rem 0}
summary{cursor:pointer;color:var(--accent)}
pre{--ground:var(--shade);overflow-x:auto;padding:.8rem 1rem;border-radius:4px;font-size:.85rem;line-height:1.45}
code{font-size:.9em}
.bad{border-left:4px solid #d55e00;padding-left:.8rem}
@media (max-width:40rem){
main{padding-top:.8rem}
h1{font-size:1.4rem}
dl{grid-template-columns:1fr;gap:0}
dd{margin-bottom:.5rem}
svg.wide{display:none}
svg.narrow{display:block}
}
@media print{main{max-width:none}figure,table{break-inside:avoid}details:not([open])>*{display:none}}
"""
