/** Prints a caption and does not close the captioner: node forgetful-program.js WORKER MODEL PICTURE */
import { pathToFileURL } from 'node:url';
import { createCaptioner } from '../src/index';

const [worker, model, picture] = process.argv.slice(2);
const captioner = await createCaptioner({ model, backend: 'cpu', worker: pathToFileURL(worker) });
const { text } = await captioner.caption(picture, { min_new_tokens: 8, max_new_tokens: 8 });
console.log('text:', text);
