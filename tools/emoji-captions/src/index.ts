export { emojiIndex, sourceVersions, STYLES } from './emoji-index';
export type { EmojiRow, Style } from './emoji-index';
export { parsePerson, peopleGrid, splitGrid, SPLITS, SUBJECTS, TONES, tripleOf } from './people-grid';
export type { GridSplit, PeopleRow, Person, SplitName, Subject, Tone } from './people-grid';
export { baseCaption, fitzpatrick, houseCaption, questions } from './captions';
export type { QuestionAnswer } from './captions';
export { mapPool, renderPixels, renderPng } from './render';
export { fileName, metadata, writePeople } from './people-folder';
export type { PeopleFolder, PeopleOptions, PeopleTask } from './people-folder';
