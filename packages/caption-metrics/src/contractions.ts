/** VQA-eval restores missing apostrophes: this maps the spelling without one to the right spelling. */

const SIMPLE = `ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd how'll how's
isn't it'd it'll ma'am mightn't might've mustn't must've needn't not've o'clock oughtn't shan't should've shouldn't
somebody'll somebody's someone'd someone'll someone's something'd something'll that's there'd there're there's they'd
they'll they're they've 'twas wasn't we've weren't what'll what're what's what've when's where'd where's where've who'd
who'll who's who've why'll why're why's won't would've wouldn't y'all you'd you'll you're you've`;

const MULTIPLE = `couldn't've hadn't've mightn't've shouldn't've wouldn't've he'd've it'd've she'd've somebody'd've
someone'd've something'd've there'd've they'd've we'd've who'd've you'd've 'ow's'at y'all'll y'all'd've`;

/** Every spelling of `form` that lacks one of its apostrophes. */
function withoutOne(form: string): string[] {
  return [...form].flatMap((letter, i) => (letter === "'" ? [form.slice(0, i) + form.slice(i + 1)] : []));
}

const entries = `${SIMPLE} ${MULTIPLE}`
  .split(/\s+/)
  .flatMap((form) => withoutOne(form).map((key): [string, string] => [key, form]));

/** VQA-eval has one entry in the other direction. Its entries with capitals have no effect because texts are lower-cased. */
export const CONTRACTIONS: ReadonlyMap<string, string> = new Map([...entries, ["somebody'd", 'somebodyd']]);
