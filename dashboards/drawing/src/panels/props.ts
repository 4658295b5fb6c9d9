/** What each way to draw is given. */

import { DataFrame } from '@grafana/data';

import { Answer, Panel } from '../recorded';

export interface PanelProps {
  panel: Panel;
  frames: DataFrame[];
  answers: Answer[];
  width: number;
  height: number;
}
