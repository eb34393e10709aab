/** The data sets of the study. */
import { writePeople } from '@blip2/emoji-captions';
import { drawChart } from './pictures/charts';
import { writeDrawings } from './pictures/folder';
import { drawScene } from './pictures/scenes';

export type DataName = 'emoji' | 'charts' | 'scenes';

export interface StudyData {
  name: DataName;
  title: string;
  /** with one folder for each of train, validation and test */
  folder: string;
  task: 'caption' | 'vqa';
  /** what the tables compare */
  metric: 'cider_d' | 'accuracy';
  /** training pictures; the last size is all of them */
  sizes: readonly number[];
  /** its learning rates are tuned; a set that only checks the recommendation takes those of the others */
  tuned: boolean;
  make(): Promise<unknown>;
}

const folders = { emoji: 'data/emoji/people', charts: 'data/study/charts', scenes: 'data/study/scenes' };

export const DATA: Readonly<Record<DataName, StudyData>> = {
  emoji: {
    name: 'emoji',
    title: 'Emoji: pictures like those of the base, new words',
    folder: folders.emoji,
    task: 'caption',
    metric: 'cider_d',
    sizes: [50, 200, 1000, 2520],
    tuned: true,
    make: () => writePeople({ output: folders.emoji }),
  },
  charts: {
    name: 'charts',
    title: 'Charts: new pictures and new words',
    folder: folders.charts,
    task: 'caption',
    metric: 'cider_d',
    sizes: [50, 200, 1000, 2500],
    tuned: true,
    make: () => writeDrawings(folders.charts, drawChart, { train: 2500, validation: 150, test: 300 }),
  },
  scenes: {
    name: 'scenes',
    title: 'Scenes: questions about new pictures',
    folder: folders.scenes,
    task: 'vqa',
    metric: 'accuracy',
    sizes: [200, 1000],
    tuned: false,
    make: () => writeDrawings(folders.scenes, drawScene, { train: 1000, validation: 150, test: 300 }),
  },
};
