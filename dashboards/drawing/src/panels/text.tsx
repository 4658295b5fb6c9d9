/** Words: a text panel, and what stands where there is nothing to draw. */

import { renderMarkdown } from '@grafana/data';

import { theme } from '../theme';
import { PanelProps } from './props';

export function TextPanel({ panel, height }: PanelProps) {
  const html = renderMarkdown(panel.options?.content ?? '');
  return <div className="markdown-html" style={{ height, overflow: 'hidden', padding: 4 }} dangerouslySetInnerHTML={{ __html: html }} />;
}

export function Words({ words, width, height }: { words: string; width: number; height: number }) {
  const centred = { display: 'flex', alignItems: 'center', justifyContent: 'center', textAlign: 'center' as const };
  return <div style={{ ...centred, width, height, padding: 8, color: theme.colors.text.secondary }}>{words}</div>;
}
