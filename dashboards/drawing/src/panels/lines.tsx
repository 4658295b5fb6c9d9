/** Lines of the log: Grafana's panel for them is not published as a component, so this is a list in its colours. */

import { dateTimeFormat } from '@grafana/data';

import { Line } from '../recorded';
import { theme, timeZone } from '../theme';
import { PanelProps } from './props';

const LEVELS: Record<string, string> = {
  critical: '#705da0',
  error: '#e24d42',
  warning: '#f2c96d',
  info: '#7eb26d',
  debug: '#1f78c1',
};

export function LinesPanel({ answers, panel, height }: PanelProps) {
  const later = panel.options?.sortOrder !== 'Ascending';
  const lines = answers.flatMap((answer) => answer.lines).sort((a, b) => (later ? b.timestamp - a.timestamp : a.timestamp - b.timestamp));
  const shown = lines.slice(0, Math.floor((height - 6) / 22));
  const font = { fontFamily: theme.typography.fontFamilyMonospace, fontSize: 12, lineHeight: '22px' };
  return (
    <div style={{ ...font, height, overflow: 'hidden', padding: '0 4px' }}>
      {shown.map((line, index) => (
        <LineOf key={index} line={line} showTime={panel.options?.showTime !== false} />
      ))}
    </div>
  );
}

function LineOf({ line, showTime }: { line: Line; showTime: boolean }) {
  const bar = { borderLeft: `3px solid ${LEVELS[line.level] ?? '#8e8e8e'}`, paddingLeft: 8, whiteSpace: 'nowrap' as const };
  const time = dateTimeFormat(line.timestamp * 1000, { timeZone, format: 'YYYY-MM-DD HH:mm:ss.SSS' });
  return (
    <div style={{ ...bar, overflow: 'hidden', textOverflow: 'ellipsis' }}>
      {showTime && <span style={{ color: theme.colors.text.secondary, marginRight: 12 }}>{time}</span>}
      <span style={{ color: theme.colors.text.primary }}>{line.line}</span>
    </div>
  );
}
