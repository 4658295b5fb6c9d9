/** One dashboard on a page, as wide as the window: its variables, its rows and its panels. */

import { DataFrame, dateTimeFormat, ThemeContext } from '@grafana/data';
import { GlobalStyles, PanelChrome } from '@grafana/ui';
import { flushSync } from 'react-dom';
import { createRoot } from 'react-dom/client';

import 'uplot/dist/uPlot.min.css';

import { configured } from './fields';
import { framesOf } from './frames';
import { Content } from './panels';
import { Answer, Panel, Recorded } from './recorded';
import { theme, timeZone } from './theme';

// Grafana's grid: 24 columns, rows of 30 pixels, 8 between them
const COLUMNS = 24;
const ROW = 38;
const GAP = 8;
const MARGIN = 16;
const HEAD = 96;
const FULL = ['stat', 'table']; // panels that Grafana gives no padding

const recorded: Recorded = window.recorded;

function answersTo(panel: Panel): Answer[] {
  const targets = (panel.targets ?? []).filter((target) => !target.hide);
  return targets.flatMap((target) => recorded.answers[panel.id]?.[target.refId] ?? []);
}

async function framesIn(panel: Panel): Promise<DataFrame[]> {
  const found = (panel.targets ?? []).flatMap((target) => {
    const answer = target.hide ? undefined : recorded.answers[panel.id]?.[target.refId];
    return answer ? framesOf(target, answer) : [];
  });
  return configured(panel, found, theme, timeZone);
}

function Drawn({ panel, frames, unit }: { panel: Panel; frames: DataFrame[]; unit: number }) {
  const { x, y, w, h } = panel.gridPos;
  const [width, height] = [w * unit - GAP, h * ROW - GAP];
  const place = { position: 'absolute' as const, left: MARGIN + x * unit, top: HEAD + y * ROW, width, height };
  if (panel.type === 'row') {
    return (
      <div style={{ ...place, ...theme.typography.h5, display: 'flex', alignItems: 'center', color: theme.colors.text.primary }}>
        {panel.title}
      </div>
    );
  }
  const padding = FULL.includes(panel.type) ? 'none' : 'md';
  return (
    <div style={place}>
      <PanelChrome
        title={panel.title}
        description={panel.description}
        width={width}
        height={height}
        padding={padding}
        displayMode={panel.transparent ? 'transparent' : 'default'}
      >
        {(w, h) => <Content panel={panel} frames={frames} answers={answersTo(panel)} width={w} height={h} />}
      </PanelChrome>
    </div>
  );
}

function Head() {
  const time = (seconds: number) => dateTimeFormat(seconds * 1000, { timeZone, format: 'YYYY-MM-DD HH:mm:ss' });
  const box = { border: `1px solid ${theme.colors.border.medium}`, borderRadius: 2, padding: '3px 8px', height: 30 };
  return (
    <div style={{ padding: `12px ${MARGIN}px 0` }}>
      <div style={{ display: 'flex', alignItems: 'baseline', gap: 16 }}>
        <span style={{ ...theme.typography.h4 }}>{recorded.dashboard.title}</span>
        <span style={{ color: theme.colors.text.secondary }}>{recorded.dashboard.description}</span>
        <span style={{ marginLeft: 'auto' }}>{`${time(recorded.from)} to ${time(recorded.to)} UTC`}</span>
      </div>
      <div style={{ display: 'flex', gap: 12, marginTop: 12 }}>
        {recorded.variables.map(({ name, label, text }) => (
          <span key={name} style={{ display: 'flex' }}>
            <span style={{ ...box, background: theme.colors.background.secondary }}>{label}</span>
            <span style={{ ...box, background: theme.components.input.background }}>{text}</span>
          </span>
        ))}
      </div>
    </div>
  );
}

/** Load Grafana's fonts before anything is measured: a graph leaves room for its labels once. */
async function fonts(): Promise<void> {
  const root = createRoot(document.head.appendChild(document.createElement('div')));
  flushSync(() => root.render(<ThemeContext.Provider value={theme}><GlobalStyles /></ThemeContext.Provider>));
  await Promise.all(["14px Inter", "500 14px Inter", "12px 'Roboto Mono'"].map((font) => document.fonts.load(font)));
}

async function draw(): Promise<void> {
  await fonts();
  const panels = recorded.dashboard.panels;
  const frames = await Promise.all(panels.map(framesIn));
  const unit = (window.innerWidth - 2 * MARGIN + GAP) / COLUMNS;
  createRoot(document.getElementById('page')!).render(
    <ThemeContext.Provider value={theme}>
      <Head />
      {panels.map((panel, index) => (
        <Drawn key={panel.id} panel={panel} frames={frames[index]} unit={unit} />
      ))}
    </ThemeContext.Provider>
  );
}

/** Tell who paints this page: a picture of half a page would look like a whole one. */
function failed(reason: unknown): void {
  void fetch('failed', { method: 'POST', body: String((reason as Error)?.stack ?? reason).slice(0, 1000) });
}

window.addEventListener('error', (event) => failed(event.error ?? event.message));
window.addEventListener('unhandledrejection', (event) => failed(event.reason));
void draw();
