/** Text from outside, for people. */
import { stripVTControlCharacters } from 'node:util';

/**
 * Text that a guest or a registry wrote, made harmless for a terminal: no escape sequences, no control characters
 * but newline and tab, nothing that turns the direction of writing.
 */
export function printable(text: string): string {
  return stripVTControlCharacters(text)
    .replaceAll('\r\n', '\n')
    .replaceAll(/[^\P{Cc}\n\t]|\p{Bidi_Control}/gu, '');
}
