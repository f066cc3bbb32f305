/** Writes docs/compatibility.md. */
import { writeFileSync } from 'node:fs';
import { compatibilityPage } from './page.ts';
import { readCri } from './proto.ts';

export const PAGE = new URL('../../docs/compatibility.md', import.meta.url);

if (import.meta.main) writeFileSync(PAGE, compatibilityPage(readCri()));
