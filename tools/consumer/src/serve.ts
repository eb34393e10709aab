import type { Captioner } from '@blip2/captioner';
import { createApp, startServer } from '@blip2/serve';
import type { RunningServer } from '@blip2/serve';
import { same } from './types.js';

declare const captioner: Captioner;

same<ReturnType<typeof startServer>, Promise<RunningServer>>(true);
void createApp(captioner, { hosts: '*', image_hosts: ['images.example.com'] }).fetch(
  new Request('http://localhost/'),
);
// @ts-expect-error hosts are a list
createApp(captioner, { hosts: 5 });
