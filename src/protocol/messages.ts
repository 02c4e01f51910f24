/** The generated messages (`messages.agent`, `messages.log`, `messages.peer`), loaded after protobufjs is configured. */
import './protobuf.ts';

export { futurestore as messages } from './generated/messages.js';
