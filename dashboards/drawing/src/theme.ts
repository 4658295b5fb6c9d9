/** What Grafana's components find around them in Grafana: its theme, its time zone and its time range. */

import { createTheme, dateTime, TimeRange } from '@grafana/data';

export const theme = createTheme({ colors: { mode: 'dark' } });
export const timeZone = 'utc';
const { from, to } = window.recorded;
export const timeRange: TimeRange = {
  from: dateTime(from * 1000),
  to: dateTime(to * 1000),
  raw: { from: dateTime(from * 1000), to: dateTime(to * 1000) },
};
