export const COLOURS = {
  red: '#d62828',
  blue: '#1d4ed8',
  green: '#15803d',
  yellow: '#facc15',
  black: '#111827',
  pink: '#ec4899',
} as const;

export type Colour = keyof typeof COLOURS;
export const COLOUR_NAMES = Object.keys(COLOURS) as Colour[];
